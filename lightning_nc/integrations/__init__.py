"""Other training loops and dashboards than Lightning's; each file needs the library it names."""

"""Log figures, tables and panels to any of Lightning's loggers.

Loggers are recognised by class name: each of Lightning's two namespaces has its own class, and both
work in either Trainer.
"""

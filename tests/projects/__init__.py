"""Everyday projects: what is measured of each, and that every value is right."""

import pytest

pytest.register_assert_rewrite("tests.projects.checks")

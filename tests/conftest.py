"""Fixtures that every test may ask for come from the plugins named here."""

pytest_plugins = ["tests.postgres"]

"""The configuration: frozen types (sections.py and the files it gathers), and a loader that knows file, line and key.

In: config.toml, config.d/*.toml and the environment. Out: a `Config`, or a ConfigError with every mistake found.
"""

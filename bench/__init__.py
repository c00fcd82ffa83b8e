"""How fast the parts are, each beside a limit measured in the same run. `python -m bench` runs all, or those named."""

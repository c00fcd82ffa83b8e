"""The one gate for every reader."""

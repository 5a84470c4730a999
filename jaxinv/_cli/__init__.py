"""The command line: `python -m jaxinv` checks this device, `python -m jaxinv bench` times it."""

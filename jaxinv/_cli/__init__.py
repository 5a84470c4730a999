"""The command line: `python -m jaxinv` checks this device, `bench` times it, `doctor` looks for what does harm."""

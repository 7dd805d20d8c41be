"""Whether this machine, device and dtype compute what the released code computed: `python -m bench verify`."""

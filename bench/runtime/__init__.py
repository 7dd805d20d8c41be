"""The machine: devices, processes, threads, files."""

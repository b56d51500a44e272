"""A real Kubernetes of six workers on this machine, for the tests: see README.md.

Upstream's own binaries, each worker in a network and a mount namespace of its own. `python -m cluster` is the command
line, `cluster.lifecycle` brings the cluster up and takes it down, and `cluster.faults` breaks it on purpose.
"""

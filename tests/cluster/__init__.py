"""A real one-node Kubernetes for tests and the demo, made from source on any Debian-like machine.

Neither a container engine nor a virtual machine is needed: the Kubernetes programs are built from
their Go modules, run as plain processes in one network namespace without an uplink, and leave
nothing behind. Only the standard library is used, because this runs before any virtual
environment exists.
"""

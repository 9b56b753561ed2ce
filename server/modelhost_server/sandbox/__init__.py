"""What processes that run models may not do: reach the network, other processes, files that are none of their business.

`rights` is the entrance. Landlock and seccomp are a few system calls each, made here: of the bindings there are, one is
a development version and none has been cared for long enough to be trusted with this.
"""

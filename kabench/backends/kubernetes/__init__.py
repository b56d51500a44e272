"""A real cluster: agents as a DaemonSet, noise, decoys and targets as pods, placed by the cluster's own schedulers.

The only place with a Kubernetes client. `naming`, `objects`, `pods`, `workers` and `losses` are pure.
"""

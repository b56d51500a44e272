"""What runs on each node: the service that the controller talks to, and the engine that drives the targets.

It imports `kabench.core`, `kabench.wire`, `kabench.clock` and `kabench.errors`, and nothing else of kabench.
"""

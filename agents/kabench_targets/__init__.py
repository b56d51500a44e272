"""What is measured or disturbs: HTTP echo, null echo, the built-in stressor and the canary.

Each is a process of its own (`python -m kabench_targets NAME …`) and knows nothing of the rest of
the project.
"""

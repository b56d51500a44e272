"""The run: it knows the plan, the fleet and the agents' links, and writes down each step before and after it is taken."""

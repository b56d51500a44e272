"""What goes over the wire: requests as bytes, replies as verdicts. Pure: no I/O, no clocks, no tasks."""

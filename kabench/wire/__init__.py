"""The messages between controller and agent. Pure: versioned structs, no transport.

Every struct is frozen; a new field has a default; another `PROTOCOL` is refused at hello. JSON on the wire.
"""

"""What a person reads: tables, JSON and charts. Everything here reads results and measures nothing."""

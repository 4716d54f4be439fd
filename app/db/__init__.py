"""Tables, their base and the sessions."""

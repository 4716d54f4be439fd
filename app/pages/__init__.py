"""Pages for people: JSON documents rendered as HTML, without scripts. Nothing here computes or asks a database."""

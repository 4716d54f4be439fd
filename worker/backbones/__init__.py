"""Source models: their networks and parts, their graphs and towers once prepared, and the features that they give."""

"""The report site and the energy explorer: what a reader sees without running anything."""

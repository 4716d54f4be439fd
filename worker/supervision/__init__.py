"""The worker's own process, without torch: it claims jobs, watches their children, sweeps, cleans, collects, sends."""

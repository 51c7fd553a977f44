"""Each module of the collector on its own, against real HTTP and a real bucket where it speaks to one."""

"""Published laws that the simulator is held against: one file per law, ``run.validate`` measures and judges."""

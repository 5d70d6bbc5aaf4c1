"""Does longer DNA context help: conditions, controls, the rule of decision, its report."""

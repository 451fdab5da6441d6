# Aliases for run.py, which works without make: python3 run.py demo
# Arguments: make test ARGS="tests/unit -k codec"
.PHONY: demo test check bench soak node clean
demo test check bench soak node clean:
	@python3 run.py $@ $(ARGS)

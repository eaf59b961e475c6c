# make demo: set up and run the main job end to end.  make test: set up and run the tests.
VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
FLEET := samples/fleets/edge-server-wifi.toml

# make slow: the tests that take long.

.PHONY: demo test slow check format clean bench gpu

$(READY): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[onnx,dev]'
	touch $@

# What the README shows: cut AlexNet, measure it on two emulated devices, solve, deploy, report.
demo: $(READY)
	rm -rf demo
	mkdir demo
	$(BIN)/edgecut inspect alexnet
	$(BIN)/edgecut samples alexnet -o demo/samples
	$(BIN)/edgecut profile alexnet --device edge --fleet $(FLEET) --backend onnxruntime \
	    --samples demo/samples --max-runs 60 -o demo/edge.csv
	$(BIN)/edgecut profile alexnet --device server --fleet $(FLEET) --backend onnxruntime \
	    --samples demo/samples --max-runs 60 -o demo/server.csv
	$(BIN)/edgecut solve --profiles demo/edge.csv demo/server.csv --fleet $(FLEET) -o demo/plan.json
	$(BIN)/edgecut deploy demo/plan.json -o demo/run
	$(BIN)/edgecut report demo/edge.csv demo/server.csv demo/run -o demo/report
	@echo; echo "Open demo/report/report.html."

# Two at a time: many tests wait for processes of their own.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

slow: $(READY)
	$(BIN)/python -m pytest -m slow

bench: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/hop.py
	$(BIN)/python benchmarks/profile_overhead.py
	$(BIN)/python benchmarks/forecast.py
	$(BIN)/python benchmarks/pipelining.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/peers.py --peers ray
	$(BIN)/python benchmarks/captured.py
	$(BIN)/python benchmarks/preparation.py
	$(BIN)/python benchmarks/repeat.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/recovery.py
	$(BIN)/python benchmarks/active.py
	$(BIN)/python benchmarks/metering.py
	$(BIN)/python benchmarks/links.py
	$(BIN)/python benchmarks/solver_speed.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/front.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/scission.py
	$(BIN)/python benchmarks/dime.py
	$(BIN)/python benchmarks/many.py
	$(BIN)/python benchmarks/simulate.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/trace.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/ray_engine.py

# On a machine with an NVIDIA GPU: the tests that need one, then docs/gpu.md.
gpu: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[cuda]'
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/gpu.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

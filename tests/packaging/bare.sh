#!/bin/sh
# bare.sh PYTHON WHEEL FOLDER: install the wheel into a fresh environment from which no compiler can
# be reached, and run what a first user runs.
set -eu
python=$(command -v "$1") wheel=$2 folder=$3
rm -rf "$folder"
"$python" -m venv "$folder"
export CC=/bin/false CXX=/bin/false PATH="$folder/bin"
unset PYTHONPATH UNMASK_DATA || true
pip install --quiet --disable-pip-version-check --only-binary :all: "$wheel"
unmask --version
unmask doctor
unmask check mnist mnist --minutes 0.3 --out "$folder/check" --fail-on never

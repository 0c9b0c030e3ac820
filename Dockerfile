# The page and the HTTP API: docker compose up, with UNMASK_TOKEN set. Any other command of Unmask:
# docker run --rm -v "$PWD:/data:ro" unmask check mnist mnist --out /tmp/check
FROM python:3.11-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml CMakeLists.txt constraints.txt README.md LICENSE ./
COPY src src
# PyTorch's own index of CPU builds, given here, leaves gigabytes of CUDA out.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_CONSTRAINT=/source/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    UNMASK_KERNEL=1
RUN python -m venv /opt/unmask && /opt/unmask/bin/pip install '.[web]'

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home unmask
COPY --from=build /opt/unmask /opt/unmask
ENV PATH=/opt/unmask/bin:$PATH \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /home/unmask
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:7860/api/health', headers={'Authorization': 'Bearer ' + os.environ['UNMASK_TOKEN']}), timeout=4)"]
ENTRYPOINT ["unmask"]
CMD ["serve", "--host", "0.0.0.0"]

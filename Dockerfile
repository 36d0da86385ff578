# The node as an image: daemon, trainer library and the example tasks, on CPU.
#
#   docker build -t adpsgd-node .
#   docker build -t adpsgd-node --build-arg TORCH_INDEX_URL=<index of PyTorch wheels> --build-arg TORCH_VERSION=2.9.1 .
#
# Without TORCH_INDEX_URL torch comes from wherever pip is configured to look. Where that index offers only the CUDA build
# (gigabytes), name PyTorch's index of CPU wheels; name one of its CUDA indexes for a GPU image. pip looks there besides,
# and takes its build (2.13.0+cpu) before the plain one. TORCH_VERSION takes the place of the version in constraints.txt,
# for an index that lacks it.

FROM python:3.11-slim AS build
ARG TORCH_INDEX_URL=""
ARG TORCH_VERSION=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Debian keeps one version, the patched one: a pin would break with its next patch.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/*

# The environment has no pip of its own; the base image's installs into it, here and in images built FROM this one.
RUN python -m venv --without-pip /opt/adpsgd

# Dependencies first, torch before all: its layer changes only when the pins do.
COPY constraints.txt ./
RUN if [ -n "$TORCH_VERSION" ]; then sed -i "s/^torch==.*/torch==$TORCH_VERSION/" constraints.txt; fi \
 && pip --python /opt/adpsgd/bin/python install --compile --constraint constraints.txt \
      ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torch
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['digits'], sep='\n')" > requirements.txt \
 && pip --python /opt/adpsgd/bin/python install --compile --constraint constraints.txt --requirement requirements.txt

COPY LICENSE README.md ./
COPY adpsgd_node ./adpsgd_node
COPY cli ./cli
RUN pip --python /opt/adpsgd/bin/python install --compile --no-deps . \
 && /opt/adpsgd/bin/adpsgd-node version


FROM python:3.11-slim
ARG REVISION=""
LABEL org.opencontainers.image.title="adpsgd-node" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.description="Asynchronous decentralized parallel SGD as a peer-to-peer training daemon" \
      org.opencontainers.image.licenses="Apache-2.0"

# A name for the number: torch and others ask the system who they run as. No program in the image makes another user of
# who runs it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /runs --shell /usr/sbin/nologin adpsgd \
 && install -d -o 10001 -g 10001 -m 0750 /runs \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

# As process 1 it passes signals on, and takes in what a killed script's own processes (DataLoader workers) leave behind.
COPY --from=build /usr/bin/tini-static /usr/bin/tini
COPY --from=build /opt/adpsgd /opt/adpsgd

# The bytecode is compiled above; a read-only root could not keep it anyway.
ENV PATH=/opt/adpsgd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/runs

USER 10001:10001
WORKDIR /runs
VOLUME ["/runs"]
EXPOSE 7400 8400
STOPSIGNAL SIGTERM

# The HTTP server's default port is 8400; ADPSGD_HTTP is followed where it is set (0.0.0.0 reaches this container). No
# proxy is asked, whatever the environment says.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection(os.environ.get('ADPSGD_HTTP', '127.0.0.1:8400'), timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["tini", "--", "adpsgd-node"]
CMD ["up"]

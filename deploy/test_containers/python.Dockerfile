# Stands in for python:3.11-slim-bookworm where no registry can be reached: Debian's own Python 3.11.
FROM marquee-stand-in/debian:bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/bin/python3.11 /usr/local/bin/python
CMD ["python"]

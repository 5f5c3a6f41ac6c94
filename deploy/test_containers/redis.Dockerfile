# Stands in for redis:7-bookworm where no registry can be reached: Debian's own Redis 7, the same user and volume.
FROM marquee-stand-in/debian:bookworm
RUN groupadd --gid 999 redis && useradd --uid 999 --gid redis --no-create-home redis \
    && apt-get update \
    && apt-get install --yes --no-install-recommends redis-server redis-tools \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner redis --group redis /data
WORKDIR /data
CMD ["redis-server"]

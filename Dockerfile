# CPU image. Build and run:
#   docker build -t kd_lightning .
#   docker run --rm -v "$PWD/outputs:/work/outputs" kd_lightning train experiment=quickstart
# Folders of photos and recordings are read by several processes, which share memory: add --shm-size=1g.
# The commands are the README's, with torch's CPU wheels, which are a tenth as large.
FROM python:3.11-slim
COPY . /src
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir -c /src/constraints.txt \
       --extra-index-url https://download.pytorch.org/whl/cpu /src
ENV PATH=/venv/bin:$PATH
WORKDIR /work
ENTRYPOINT ["kd"]
CMD ["--help"]

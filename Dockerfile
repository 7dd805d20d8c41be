# CPU:  docker build -t ovss-bench .
# CUDA: docker build -t ovss-bench --build-arg BASE=pytorch/pytorch:latest .   (any image with Python 3.10 or newer and CUDA)
ARG BASE=python:3.12-slim
FROM ${BASE}
WORKDIR /opt/ovss-bench
COPY . .
RUN pip install --no-cache-dir '.[geo]'
WORKDIR /work
ENTRYPOINT ["python", "-m", "bench"]
CMD ["verify"]

# The scripts in a container:
#   docker build -t npr .
#   docker run --rm -it --shm-size 2g -v "$PWD:/data" npr \
#       python /npr/predict.py --model_path M.pth photo.jpg
# The locked PyTorch runs on CPUs and on NVIDIA GPUs. For GPUs, add --gpus all to docker run (the
# host needs its driver and the NVIDIA container toolkit).
FROM python:3.12-slim

# further requirements, such as "requirements/video.txt requirements/heic.txt"
ARG EXTRAS=""

# --compile and --fast need a compiler of C++
RUN apt-get update && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /npr
COPY requirements.txt ./
COPY requirements ./requirements
RUN pip install --no-cache-dir --require-hashes -r requirements/lock.txt \
    && for file in $EXTRAS; do pip install --no-cache-dir -r "$file" || exit 1; done
COPY . .

# python -m tools.NAME works from any folder
ENV PYTHONPATH=/npr
# relative paths are those of the folder that is mounted
WORKDIR /data
CMD ["python", "/npr/predict.py", "--help"]

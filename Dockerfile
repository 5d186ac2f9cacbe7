# The scripts in a container, for a CPU:
#   docker build -t npr .
#   docker run --rm -it --shm-size 2g -v "$PWD:/data" npr \
#       python /npr/predict.py --model_path M.pth photo.jpg
# For NVIDIA GPUs (the host needs its driver and the NVIDIA container toolkit):
#   docker build --build-arg CUDA=1 -t npr:cuda . && docker run --gpus all ... npr:cuda ...
FROM python:3.12-slim

# 1: the locked packages, whose PyTorch brings CUDA; 0: PyTorch's smaller build for a CPU
ARG CUDA=0
# further requirements, such as "requirements/video.txt requirements/heic.txt"
ARG EXTRAS=""

# --compile and --fast need a compiler of C++
RUN apt-get update && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /npr
COPY requirements.txt ./
COPY requirements ./requirements
RUN if [ "$CUDA" = 1 ]; then \
        pip install --no-cache-dir --require-hashes -r requirements/lock.txt; \
    else \
        pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
            $(sed -nE 's/^(torch|torchvision)==([^ ;+]+).*/\1==\2+cpu/p' requirements.txt) \
        && pip install --no-cache-dir -r requirements.txt; \
    fi \
    && for file in $EXTRAS; do pip install --no-cache-dir -r "$file" || exit 1; done
COPY . .

# python -m tools.NAME works from any folder
ENV PYTHONPATH=/npr
# relative paths are those of the folder that is mounted
WORKDIR /data
CMD ["python", "/npr/predict.py", "--help"]

# An agent in a container:
#   docker build -t edgecut-agent -f agent.Dockerfile .
#   docker run -d --name nano --restart always --stop-timeout 45 --network host \
#     --cpuset-cpus 2,3 --memory 4g \
#     -v edgecut:/var/lib/edgecut -v /etc/edgecut/keys:/etc/edgecut/keys:ro \
#     edgecut-agent --name nano --listen tls/0.0.0.0:7447 --keys /etc/edgecut/keys
#
# --cpuset-cpus   pins it: threads then neither move nor share a processor with others, and times are steady
# --memory        the agent announces this limit, and refuses plans that do not fit before the kernel kills it
# --network host  what it announces is an address of the device; with -p 7447:7447 instead, --discoverable and
#                 direct connections between agents do not work
# --stop-timeout  SIGTERM lets deployments move to another device first, which has 30 s
# -v edgecut:     tables, and bundles by their SHA-256: without it a new container measures and loads all anew
# /etc/edgecut/keys belongs to user 1000, mode 0600 for key.pem
#
# With an NVIDIA GPU: begin FROM one of NVIDIA's images with CUDA (on a Jetson: l4t), install edgecut[onnx,cuda] or
# edgecut[tensorrt], and add --gpus all (on a Jetson: --runtime nvidia).
FROM python:3.12-slim

RUN pip install --no-cache-dir 'edgecut[onnx]' \
    && useradd --uid 1000 --create-home edgecut \
    && install --directory --owner edgecut /var/lib/edgecut
USER edgecut
VOLUME /var/lib/edgecut
EXPOSE 7447
STOPSIGNAL SIGTERM
ENTRYPOINT ["edgecut", "agent", "--folder", "/var/lib/edgecut"]
CMD ["--help"]

#!/usr/bin/env bash
# Installs what the build and its tests want from Debian or Ubuntu, and only what is missing:
# a C/C++ compiler, cmake and pkg-config for librdkafka and aws-lc, OpenSSL's headers, Maven and Java for Kafka.
set -euo pipefail

missing=()
have() { command -v "$1" >/dev/null 2>&1; }
have cc && have c++ && have make || missing+=(build-essential)
have cmake || missing+=(cmake)
have pkg-config || missing+=(pkg-config)
{ have pkg-config && pkg-config --exists openssl; } || missing+=(libssl-dev)
have java || missing+=(openjdk-17-jre-headless)
have mvn || missing+=(maven)

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
echo "installing: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"

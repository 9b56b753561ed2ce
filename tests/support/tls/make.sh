#!/usr/bin/env bash
# Makes the certificates of the tests again: an authority, a server and a client it vouches for, and a stranger.
set -euo pipefail
cd "$(dirname "$0")"
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }
signed() {
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$1" |
    openssl x509 -req -CA ca.pem -CAkey ca.key -days 36500 -out "$1.pem" -extfile <(printf '%s\n' "$2")
}
key ca
openssl req -x509 -new -key ca.key -days 36500 -subj "/CN=modelhost tests" -out ca.pem
signed server $'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth'
signed client 'extendedKeyUsage=clientAuth'
key stranger
openssl req -x509 -new -key stranger.key -days 36500 -subj "/CN=stranger" -out stranger.pem
rm -f ca.key ./*.srl

# Everything is built by Go alone: no other tool is needed for demo and test.
export CGO_ENABLED ?= 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: build demo test race lint bench bench-proxy clean

# What is started beside each task is a small program of its own, inside serin.
build:
	go build -trimpath -ldflags='-s -w' -o internal/run/serin-helper ./internal/run/helper
	gzip -9nf internal/run/serin-helper
	go build -tags helper -trimpath -ldflags='-s -w -X serin/internal/stage.Version=$(VERSION)' -o bin/serin ./cmd/serin

demo: build
	./bin/serin demo

test:
	go vet ./...
	go test -timeout 30m ./...

# The race detector needs a C compiler.
race:
	CGO_ENABLED=1 go test -race -timeout 60m ./internal/...

lint:
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

bench: build
	bench/run

bench-proxy:
	go run ./bench/proxy

clean:
	rm -rf bin internal/run/serin-helper.gz

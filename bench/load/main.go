// load calls one URL from many connections for a while and prints calls per
// second. With -ecs the call is a signed DescribeServices of that service.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func main() {
	connections := flag.Int("c", 16, "connections")
	length := flag.Duration("d", 3*time.Second, "how long")
	service := flag.String("ecs", "", "CLUSTER/SERVICE to describe")
	flag.Parse()
	rate, err := run(flag.Arg(0), *service, *connections, *length)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%.0f\n", rate)
}

func run(url, service string, connections int, length time.Duration) (float64, error) {
	header, body := http.Header{}, []byte(nil)
	method := http.MethodGet
	if service != "" {
		cluster, name, _ := bytes.Cut([]byte(service), []byte("/"))
		method, body = http.MethodPost, fmt.Appendf(nil, `{"cluster":%q,"services":[%q]}`, cluster, name)
		r, err := http.NewRequest(method, url, nil)
		if err != nil {
			return 0, err
		}
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.DescribeServices")
		sum := sha256.Sum256(body)
		err = v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, r, hex.EncodeToString(sum[:]), "ecs", "us-east-1", time.Now())
		if err != nil {
			return 0, err
		}
		header = r.Header
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	var done atomic.Int64
	var first atomic.Pointer[error]
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for time.Now().Before(end) && first.Load() == nil {
				r, err := http.NewRequest(method, url, bytes.NewReader(body))
				if err == nil {
					r.Header = header
					var resp *http.Response
					if resp, err = client.Do(r); err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
						if resp.StatusCode != http.StatusOK {
							err = fmt.Errorf("%s answered %s", url, resp.Status)
						}
					}
				}
				if err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		return 0, *err
	}
	return float64(done.Load()) / length.Seconds(), nil
}

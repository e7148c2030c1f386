package stage

import (
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// A burst beyond the bucket: a client that tries again gets everything, one that
// does not gets the code.
func TestClientsTryAgainWhenTheyAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // on a busy machine a burst takes as long as the bucket to refill
		s, err := New(Config{Dir: t.TempDir(), Ephemeral: true, Account: "111111111111", Region: "us-east-1", Endpoint: "localhost:4566", Speed: 1, IAM: Enforce, Throttle: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		burst := func(account string, attempts int) (codes []string) {
			// An account of twelve digits is an administrator, and has buckets of its own.
			e := ecs.NewFromConfig(aws.Config{Region: "us-east-1", HTTPClient: s.HTTPClient(), BaseEndpoint: new("http://localhost:4566"), Credentials: credentials.NewStaticCredentialsProvider(account, "test", ""),
				Retryer: func() aws.Retryer {
					return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, 200*time.Millisecond })
				}})
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 60 {
				all.Go(func() {
					_, err := e.ListClusters(t.Context(), &ecs.ListClustersInput{})
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						codes = append(codes, code(err))
					}
				})
			}
			all.Wait()
			return codes
		}
		if codes := burst("222222222222", 1); len(codes) == 0 || codes[0] != "ThrottlingException" {
			t.Errorf("without another try a burst gives %v", codes)
		}
		if codes := burst("333333333333", 20); len(codes) != 0 {
			t.Errorf("with more tries a burst gives %v", codes)
		}
	})
}

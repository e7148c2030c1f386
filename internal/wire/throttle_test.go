package wire_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"serin/internal/wire"
)

func TestABucketEmptiesAndRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ecs *wire.Service
		for _, s := range services(t) {
			if s.Name == "ecs" {
				ecs = s
			}
		}
		g := gateway(ecs)
		g.Throttle = wire.NewThrottle()
		passed := func(operation string, n int) (passed int) {
			for range n {
				r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{}`))
				r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113."+operation)
				w := httptest.NewRecorder()
				g.ServeHTTP(w, r)
				if strings.Contains(w.Body.String(), `"ThrottlingException","message":"Rate exceeded"`) && w.Code == http.StatusBadRequest {
					continue
				}
				passed++
			}
			return passed
		}
		if n := passed("ListClusters", 60); n != 50 {
			t.Errorf("%d of 60 calls at once passed, want the burst, 50", n)
		}
		if n := passed("DescribeClusters", 1); n != 0 {
			t.Error("an operation of the same bucket passed")
		}
		if n := passed("ListTaskDefinitions", 1); n != 1 {
			t.Error("an operation of another bucket was throttled")
		}
		if n := passed("StopServiceDeployment", 500); n != 500 {
			t.Errorf("%d of 500 calls without a bucket passed", n)
		}
		time.Sleep(time.Second)
		if n := passed("ListClusters", 60); n != 20 {
			t.Errorf("%d of 60 calls passed after a second, want the refill, 20", n)
		}
		time.Sleep(time.Hour)
		if n := passed("ListClusters", 60); n != 50 {
			t.Errorf("%d of 60 calls passed after an hour, want the burst, 50", n)
		}
	})
}

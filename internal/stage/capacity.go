package stage

import (
	"fmt"
	"net/http"

	"serin/internal/arn"
)

// Interrupt has Spot take an instance of a region back.
func (s *Stage) Interrupt(region, instance string) error {
	return s.ecs.Interrupt(arn.Scope{Account: s.config.Account, Region: region}, instance)
}

// Deny has EC2 run out of an instance type in a region, or have it again.
func (s *Stage) Deny(region, name string, deny bool) error {
	return s.ecs.Deny(arn.Scope{Account: s.config.Account, Region: region}, name, deny)
}

// Impair has a check of a container instance's health fail.
func (s *Stage) Impair(region, instance, check string) error {
	return s.ecs.Impair(arn.Scope{Account: s.config.Account, Region: region}, instance, check)
}

// impair answers POST /_serin/instances/impair?instance=ID&type=CHECK&region=REGION.
func (s *Stage) impair(w http.ResponseWriter, r *http.Request) {
	s.capacityCall(w, r, "instance", func(region, name string) error { return s.Impair(region, name, r.FormValue("type")) })
}

// interrupt answers POST /_serin/spot/interrupt?instance=ID&region=REGION.
func (s *Stage) interrupt(w http.ResponseWriter, r *http.Request) {
	s.capacityCall(w, r, "instance", s.Interrupt)
}

// setCapacity answers POST /_serin/capacity/deny?type=TYPE&region=REGION, and allow.
func (s *Stage) setCapacity(deny bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.capacityCall(w, r, "type", func(region, name string) error { return s.Deny(region, name, deny) })
	}
}

func (s *Stage) capacityCall(w http.ResponseWriter, r *http.Request, key string, do func(region, name string) error) {
	region, name := r.FormValue("region"), r.FormValue(key)
	if region == "" {
		region = s.config.Region
	}
	err := fmt.Errorf("%s must be given", key)
	if name != "" {
		err = do(region, name)
	}
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{key: name, "region": region})
}

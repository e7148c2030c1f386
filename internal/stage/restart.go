package stage

import (
	"net/http"
	"time"
)

// restart answers POST /_serin/restart?drain=DURATION: the stage ends, when requests
// to its load balancers have been answered or the duration is over, and whoever runs
// it starts it again on the same sockets.
func (s *Stage) restart(w http.ResponseWriter, r *http.Request) {
	drain, err := time.ParseDuration(r.URL.Query().Get("drain"))
	switch {
	case err != nil || drain < 0:
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "drain must be a duration such as 10s"})
	case s.config.Ephemeral:
		writeJSON(w, http.StatusConflict, map[string]string{"error": "an ephemeral stage keeps nothing that another could go on from"})
	case s.config.Restart == nil:
		writeJSON(w, http.StatusConflict, map[string]string{"error": "whoever runs this stage does not start it again"})
	default:
		writeJSON(w, http.StatusOK, map[string]any{"status": "restarting", "started": s.started})
		s.balance.Drain(drain)
		s.config.Restart()
		s.again.Store(true)
		s.Down()
	}
}

package place

// Scaling is how the number of instances of an Auto Scaling group follows its
// tasks.
type Scaling struct {
	Target           int // of the reservation, percent
	MinStep, MaxStep int // of instances that come at once
}

// Load is what there is to scale by.
type Load struct {
	Have    int // instances, those that come included
	Used    int // of them, with tasks or with tasks that wait for them
	Need    int // more, for tasks that fit nowhere
	Warming int // of those there are, that have come so lately that they count as a part of the step
}

// Reservation is the metric CapacityProviderReservation, in percent: the instances
// that are needed of those that there are. Where there are none it is 100, or 200
// if some are needed; documented.
func Reservation(needed, have int) int {
	switch {
	case have > 0:
		return needed * 100 / have
	case needed > 0:
		return 200
	}
	return 100
}

// Want is the number of instances at which the reservation is at its target. More
// come by at least the least and at most the greatest step, documented; those that
// are warming up are a part of it.
func (s Scaling) Want(l Load) int {
	needed := l.Used
	if l.Need > 0 {
		step := max(min(max(l.Need, s.MinStep), s.MaxStep)-l.Warming, 0)
		if step == 0 {
			return max(l.Have, s.at(l.Used))
		}
		needed = l.Have + step
	}
	return s.at(needed)
}

// at is how many instances there must be, where so many are needed.
func (s Scaling) at(needed int) int { return (needed*100 + s.Target - 1) / s.Target }

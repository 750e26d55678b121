// The steps that HostLock and the driver are made of.
#pragma once

#include "shim/shared_host.h"

namespace ustack::shim {

/// Takes the lock; an owner that has died is noted.
void acquire(SharedHost& shared);
/// Drops the lock and ends the sleep of those that were woken under it.
void drop(SharedHost& shared);
/// Runs what is ready, hands frames to the link, and sees to it that the driver knows of an earlier deadline
/// or of frames that found the link full. Lock held; dropped meanwhile where several threads use the host.
void settle(SharedHost& shared);
/// Ends a sleep when the lock is dropped, without a notification: its thread looks at its conditions again.
void rouse(SharedHost& shared, Waiter& waiter);
/// The same for the driver that a queue has.
void wake_driver(SharedHost& shared, LinkQueue& queue);

}  // namespace ustack::shim

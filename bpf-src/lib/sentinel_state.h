/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The words that all of Sentinel's programs read first. */
#ifndef IRONCLAD_LIB_SENTINEL_STATE_H
#define IRONCLAD_LIB_SENTINEL_STATE_H

#include "base.h"

struct ic_sentinel ic_sentinel SEC(".data.ic_sentinel");

IC_INLINE bool ic_is_armed(void)
{
	return IC_READ_ONCE(ic_sentinel.is_armed);
}

#endif

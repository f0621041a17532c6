"""What one member of a network holds, to compare it with a network of one member."""

import torch

# Buffers without the axis of members, beside those of graphs.
SHARED = (
    *("times", "window_steps", "window_present", "fold_rows", "horizon_shares"),
    *("folds", "rows", "numerics", "user_convolved", "service_convolved"),
    *("user_initial", "service_initial"),
    *("later_steps", "later_present", "keys", "values", "sums", "counts"),
)


def of_member(tensors, member, n_members):
    """Return a member's part of parameters, gradients or buffers, by name.

    It has the names and shapes of a module of one member.
    """
    found = {}
    for name, values in tensors.items():
        parts = name.split(".")
        if "members" in parts:
            # Recurrent layers: one module each.
            if parts[parts.index("members") + 1] != str(member):
                continue
            parts[parts.index("members") + 1] = "0"
            found[".".join(parts)] = values
        elif "graph" in parts or parts[-1] in SHARED:
            found[name] = values
        elif parts[-1] == "factors":
            # Sides come before members.
            found[name] = values[:, [member]]
        elif parts[-1] == "vectors":
            # Members stand side by side in each row.
            found[name] = values.unflatten(1, (n_members, -1))[:, member]
        elif "numeric_layer" in parts:
            found[name] = values.unflatten(0, (n_members, -1))[member]
        else:
            found[name] = values if len(values) == 1 else values[[member]]
    return {name: values.clone() for name, values in found.items()}


def gradients(module):
    """Return the gradients by name, without parameters that take no part."""
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def check_members_alone(module, make_alone, compute):
    """Check members of a module against modules of one member that hold the same weights.

    `compute` maps a module to a tensor with the members first. Gradients are compared, too.
    """
    together = compute(module)
    n_members = len(together)
    weights = torch.linspace(-1.0, 2.0, together[0].numel()).view(together[0].shape)
    (together * weights).sum().backward()
    assert (together[0] - together[1]).abs().max() > 0.01
    for member in range(n_members):
        alone = make_alone()
        alone.load_state_dict(of_member(module.state_dict(), member, n_members))
        found = compute(alone)
        torch.testing.assert_close(found[0], together[member], rtol=1e-4, atol=1e-5)
        (found * weights).sum().backward()
        expected = of_member(gradients(module), member, n_members)
        assert expected.keys() == gradients(alone).keys()
        for name, gradient in gradients(alone).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)

from django.db import migrations, models

import flashsale.contrib.django.models


class Migration(migrations.Migration):
    dependencies = [("flashsale", "0004_reason")]

    operations = [
        migrations.CreateModel(
            name="SaleTrail",
            fields=[
                ("entry_id", models.BigAutoField(primary_key=True, serialize=False)),
                ("sale", flashsale.contrib.django.models.IdField(max_length=64)),
                ("at", models.FloatField()),
                ("actor", flashsale.contrib.django.models.ReasonField()),
                ("host", flashsale.contrib.django.models.ReasonField()),
                ("command", flashsale.contrib.django.models.ReasonField()),
                ("arguments", models.TextField()),
                ("before", models.TextField()),
                ("after", models.TextField(null=True)),
                ("reason", flashsale.contrib.django.models.ReasonField(null=True)),
            ],
            options={
                "verbose_name": "entry of the trail",
                "verbose_name_plural": "trail",
                "db_table": "flashsale_audit",
            },
        ),
        migrations.AddField(
            model_name="saleorder",
            name="persisted_at",
            field=models.FloatField(editable=False, null=True),
        ),
        migrations.AddIndex(
            model_name="saleorder",
            index=models.Index(fields=["sale", "buyer_id"], name="flashsale_orders_buyer"),
        ),
    ]
